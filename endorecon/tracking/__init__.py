"""Where the camera was: the pose of each frame, key frames, and the joint refinement."""
