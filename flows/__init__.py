"""One file, one running dataflow: a picture, then a paragraph per arrow."""
