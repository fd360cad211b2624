"""The demo's source: the flights that left New York in 2013, and their year replayed as live traffic."""
