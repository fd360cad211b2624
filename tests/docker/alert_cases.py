"""For each alert: series at which it must be quiet at first, fire at ``fires_min``, and be quiet again at ``quiet_min``.

Series are in promtool's notation, one value a minute: ``1x9`` is ten times 1, ``_x9`` is silence.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    series: dict[str, str]
    fires_min: int = 20
    quiet_min: int = 40
    before_min: int = 8
    """When it must not fire yet."""


GB = 1024**3
UP = 'up{job="%s", service="%s"}'
PRIMARY = {'patroni_primary{service="patroni1"}': "1x60"}

CASES: dict[str, Case] = {
    # ── platform ──
    "ServiceDown": Case({UP % ("nessie", "nessie"): "1x9 0x14 1x30", UP % ("keycloak", "keycloak"): "0x60"}),
    "ServiceRestarts": Case({'process_start_time_seconds{service="kafka"}': "1x9 2 3 4 5 6 7x60"}, 16, 60),
    "DiskFilling": Case(
        {"node_filesystem_size_bytes": "100x60", "node_filesystem_avail_bytes": "60x2 10x25 60x40"}, 20, 35, before_min=2
    ),
    "DiskFull": Case({"node_filesystem_size_bytes": "100x60", "node_filesystem_avail_bytes": "60x9 4x15 60x40"}),
    "MemoryShort": Case({"node_memory_MemTotal_bytes": "100x60", "node_memory_MemAvailable_bytes": "50x9 2x15 50x40"}),
    # Time begins at 0 here, so the expiry is a few days on; the probe refuses a certificate that has expired.
    "CertificateExpires": Case(
        {'probe_ssl_earliest_cert_expiry{job="certificate", instance="trino:8080"}': "2592000x9 1728000x15 2592000x30"}
    ),
    "CertificateExpiresSoon": Case(
        {'probe_ssl_earliest_cert_expiry{job="certificate", instance="trino:8080"}': "2592000x9 600x3 _x10 2592000x30"}
    ),
    "AlertsNotSent": Case({'prometheus_notifications_dropped_total{service="prometheus"}': "0x9 1+1x15 16x40"}),
    "RulesFail": Case({'prometheus_rule_evaluation_failures_total{rule_group="flink"}': "0x9 1+1x15 16x40"}),
    # ── PostgreSQL ──
    "PostgresNoPrimary": Case({'patroni_primary{service="patroni1"}': "1x9 _x14 1x30"}),
    "PostgresTwoPrimaries": Case({**PRIMARY, 'patroni_primary{service="patroni2"}': "0x9 1x14 0x30"}),
    "PostgresNoWriter": Case({**PRIMARY, 'haproxy_backend_active_servers{proxy="primary"}': "1x9 0x14 1x30"}),
    "PostgresUnreachable": Case({"pg_up": "1x9 0x14 1x30"}),
    "PostgresStandbyMissing": Case(
        {
            **PRIMARY,
            'patroni_sync_standby{service="patroni2"}': "1x9 0x14 1x30",
            'patroni_sync_standby{service="patroni1"}': "0x60",
        }
    ),
    "ChangesWaitForStandby": Case({"fencer_standby_away_seconds": "0x9 120x14 0x30", "fencer_changes_without_standby": "0x60"}),
    "ChangesWithoutStandby": Case({"fencer_changes_without_standby": "0x9 1x14 0x30"}),
    "FencerBlind": Case({**PRIMARY, 'fencer_watches_primary{service="fencer"}': "1x9 0x14 1x30"}),
    "PostgresStandbyBehind": Case(
        {
            **{f'patroni_xlog_location{{service="{name}"}}': f"{2 * GB}x60" for name in ("patroni1",)},
            'patroni_replica{service="patroni2"}': "1x60",
            'patroni_xlog_replayed_location{service="patroni2"}': f"{2 * GB}x9 {GB}x14 {2 * GB}x30",
        }
    ),
    "PatroniPaused": Case({'patroni_is_paused{service="patroni1"}': "0x9 1x90 0x30"}, 80, 110),
    "PostgresConnections": Case({"pg_settings_max_connections": "100x60", "pg_stat_activity_count": "10x9 95x14 10x30"}),
    "SlotInactive": Case(
        {
            'pg_replication_slot_slot_is_active{slot_name="shudl_flights", slot_type="logical"}': "1x5 0x24 1x30",
            'pg_replication_slot_slot_is_active{slot_name="patroni2", slot_type="physical"}': "0x60",
        },
        25,
    ),
    "SlotRetainsWal": Case({'pg_replication_slots_pg_wal_lsn_diff{slot_name="shudl_flights"}': f"0x9 {2 * GB}x14 0x30"}),
    "SlotNearlyLost": Case(
        {'pg_replication_slot_safe_wal_size_bytes{slot_name="shudl_flights"}': f"{4 * GB}x9 1000x14 {4 * GB}x30"}
    ),
    "WalGrows": Case({"pg_wal_size_bytes": f"{GB}x9 {7 * GB}x14 {GB}x30"}),
    "EtcdNoLeader": Case({f'etcd_server_has_leader{{service="etcd{n}"}}': "1x9 0x14 1x30" for n in (1, 2, 3)}),
    "EtcdMemberMissing": Case({**{UP % ("etcd", f"etcd{n}"): "1x60" for n in (1, 2)}, UP % ("etcd", "etcd3"): "1x9 0x14 1x30"}),
    "EtcdDatabaseLarge": Case(
        {
            'etcd_mvcc_db_total_size_in_bytes{service="etcd1"}': "1x9 9x14 1x30",
            'etcd_server_quota_backend_bytes{service="etcd1"}': "10x60",
        }
    ),
    "EtcdDiskSlow": Case(
        {
            'etcd_disk_wal_fsync_duration_seconds_bucket{service="etcd1", le="0.256"}': "0+10x9 100x24 100+10x40",
            'etcd_disk_wal_fsync_duration_seconds_bucket{service="etcd1", le="1.024"}': "0+10x9 100+10x24 340+10x40",
            'etcd_disk_wal_fsync_duration_seconds_bucket{service="etcd1", le="+Inf"}': "0+10x9 100+10x24 340+10x40",
        },
        28,
        60,
    ),
    # ── streams ──
    "KafkaPartitionsOffline": Case({'kafka_controller_offlinepartitions{service="kafka"}': "0x9 2x14 0x30"}),
    "KafkaReplicasMissing": Case({'kafka_broker_under_replicated_partitions{service="kafka2"}': "0x4 3x18 0x30"}, 20),
    "ConnectTaskFailed": Case({'kafka_connect_tasks{connector="shudl-flights", state="failed"}': "0x9 1x14 0x30"}),
    "DebeziumDisconnected": Case({'debezium_streaming_connected{server="cdc_flights"}': "1x9 0x14 1x30"}),
    "DebeziumBehind": Case({'debezium_streaming_millisecondsbehindsource{server="cdc_flights"}': "-1x4 100x4 600000x14 100x30"}),
    "FlinkNoTaskManager": Case({'flink_jobmanager_numRegisteredTaskManagers{service="flink-jobmanager"}': "1x9 0x14 1x30"}),
    "FlinkSlotsTaken": Case(
        {
            'flink_jobmanager_taskSlotsAvailable{service="flink-jobmanager"}': "4x9 0x18 4x30",
            'flink_jobmanager_taskSlotsTotal{service="flink-jobmanager"}': "16x60",
        },
        25,
    ),
    "FlinkJobNotRunning": Case({'flink_jobmanager_job_runningTime{job_name="mirror.flights"}': "1+60000x9 0x14 1+60000x30"}),
    "FlinkJobGone": Case({"flink_jobmanager_numRunningJobs": "5x9 4x18 5x30"}, 25),
    "FlinkJobRestarts": Case({'flink_jobmanager_job_numRestarts{job_name="mirror.flights"}': "0x9 1+1x10 11x60"}, 16, 60),
    "FlinkCheckpointsFail": Case(
        {
            'flink_jobmanager_job_numberOfFailedCheckpoints{job_name="mirror.flights"}': "0x9 1+1x24 25x40",
            'flink_jobmanager_job_numberOfCompletedCheckpoints{job_name="mirror.flights"}': "0+30x9 270x24 270+30x40",
        },
        28,
        55,
    ),
    # ── lake ──
    "S3DriveOffline": Case({'minio_cluster_drive_offline_total{service="s3"}': "0x9 1x14 0x30"}),
    "S3Full": Case(
        {
            'minio_cluster_capacity_usable_free_bytes{service="s3"}': "50x9 5x14 50x30",
            'minio_cluster_capacity_usable_total_bytes{service="s3"}': "100x60",
        }
    ),
    "NessieErrors": Case(
        {'http_server_requests_seconds_count{job="nessie", service="nessie", outcome="SERVER_ERROR"}': "0x9 0+60x14 840x40"}
    ),
    "TrinoQueriesWait": Case({'trino_execution_name_QueryManager_QueuedQueries{service="trino"}': "0x9 9x18 0x30"}, 25),
    "TrinoOutOfMemory": Case(
        {'trino_memory_name_ClusterMemoryManager_QueriesKilledDueToOutOfMemory{service="trino"}': "0x9 1x60"}, 15
    ),
    "ClickHouseManyParts": Case({'ClickHouseAsyncMetrics_MaxPartCountForPartition{service="clickhouse"}': "5x9 900x18 5x30"}, 25),
}
