"""The ground floor: files, cameras and streams become frames, and everyone above speaks its vocabulary."""
