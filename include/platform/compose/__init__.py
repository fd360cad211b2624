"""The Compose platform before it starts: its secrets, its certificates, and what would keep it from starting.

    python -m include.platform.compose secrets|certificates|check --folder docker ...

``docker/platform.sh`` runs this in the image ``shudl/airflow``, so that a host needs Docker only.
"""
