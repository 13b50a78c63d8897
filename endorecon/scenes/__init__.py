"""What a reconstruction is kept in; each public file here is one kind of scene."""
