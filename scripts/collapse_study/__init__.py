"""The study that scores the collapse fitter on data with planted exponents."""
