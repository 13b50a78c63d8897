"""Images in; depth, pose and intrinsics out: foundation networks and their adapters."""
