"""ShuDL in Airflow: operators, triggers, connections and pools."""
