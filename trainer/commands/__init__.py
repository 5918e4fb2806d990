"""The command line: flags and files become values, one library function is called with them."""
