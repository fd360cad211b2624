"""ShuDL's platform code. Nothing below this package imports Airflow."""
