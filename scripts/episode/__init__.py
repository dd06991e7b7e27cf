"""Episodes for `pi0-edge replay`: a folder of observations with times."""
