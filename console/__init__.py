"""The console: pages that show runs, alerts and costs, and the server behind them."""
