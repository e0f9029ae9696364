"""What training minimises: sums of weighted terms over the pixels whose class is known; see `make`."""
