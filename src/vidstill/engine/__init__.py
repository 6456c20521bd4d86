"""One loop for every task; knows neither videos nor methods."""
