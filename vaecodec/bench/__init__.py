"""Compare image codecs: rate, distortion and speed of this codec and others on given images."""
