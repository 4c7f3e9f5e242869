"""What published weights tell of the rows behind them, measured by attacking what the product publishes."""
