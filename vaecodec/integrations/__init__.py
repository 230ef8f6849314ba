"""The codec in other libraries: Pillow, numcodecs, zarr, tf.data, Ray."""
