"""What people query: ClickHouse, and the HTTP front that serves its engine where no server is installed."""
