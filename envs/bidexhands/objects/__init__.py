"""The objects that the hands handle, built of primitive shapes after the bounding boxes of the originals' meshes."""
