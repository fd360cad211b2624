"""Connections hold everything that an endpoint has, and seeding leaves alone what a user made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from airflow.models.connection import Connection
from airflow.models.pool import Pool
from airflow.models.team import Team
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from include.drills.cluster import DrillError
from include.drills.run import own
from include.platform.catalog import CONN_IDS
from include.platform.endpoints import Endpoint, keep, own_endpoints
from include.platform.settings import Settings
from shudl import seeds
from shudl.endpoints import from_connection, is_external
from shudl.seeds import POOLS, connection, seed


@pytest.fixture
def session():
    engine = create_engine("sqlite://")
    Team.metadata.create_all(engine, tables=[model.__table__ for model in (Team, Connection, Pool)])
    with Session(engine) as session:
        yield session


@pytest.fixture
def endpoints(tmp_path) -> dict[str, Endpoint]:
    return own_endpoints(Settings(home=tmp_path, port_base=30000))


def test_every_service_has_an_endpoint(endpoints: dict[str, Endpoint]) -> None:
    assert set(CONN_IDS.values()) == set(endpoints)


def test_an_endpoint_survives_as_a_connection(session: Session, endpoints: dict[str, Endpoint]) -> None:
    extra = {"bootstrap.servers": "a:1,b:2", "scheme": "https", "n": 3}
    full = Endpoint("full", "kafka", "h.example", 1, "me", "pa:ss/w@rd%", "db", extra)
    for endpoint in (*endpoints.values(), full):
        session.add(connection(endpoint))
    session.commit()
    session.expunge_all()
    read = {c.conn_id: from_connection(c) for c in session.scalars(select(Connection))}
    assert read == {**endpoints, "full": full}


def test_an_added_source_is_seeded(tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    s = Settings(home=tmp_path, port_base=30000)
    shop = Endpoint("shop_db", "postgres", "db.example", 5432, "app", "pa:ss/w@rd%", "shop")
    keep(shop, s)
    assert own_endpoints(s)["shop_db"] == shop
    monkeypatch.setattr(seeds, "own_endpoints", lambda: own_endpoints(s))
    assert "shop_db" in seed(session)
    assert from_connection(session.scalar(select(Connection).where(Connection.conn_id == "shop_db"))) == shop


def test_seeding_makes_what_is_absent_and_changes_nothing(session: Session) -> None:
    made = seed(session)
    assert set(made) == {*own_endpoints(), *POOLS}
    assert seed(session) == []

    edited = session.scalar(select(Connection).where(Connection.conn_id == "shudl_trino"))
    edited.host, edited.port = "trino.example", 443
    session.delete(session.scalar(select(Connection).where(Connection.conn_id == "shudl_kafka")))
    session.scalar(select(Pool).where(Pool.pool == "trino")).slots = 9
    session.commit()

    assert seed(session) == ["shudl_kafka"]
    trino = from_connection(session.scalar(select(Connection).where(Connection.conn_id == "shudl_trino")))
    assert trino.address == "trino.example:443"
    assert is_external("trino", trino) and not is_external("trino", own_endpoints()["shudl_trino"])
    assert session.scalar(select(Pool).where(Pool.pool == "trino")).slots == 9


def test_drills_are_for_what_is_ours() -> None:
    ours = own_endpoints()
    own(ours, "nessie", is_external)
    for conn_id in ("shudl_nessie", "flights_db"):
        elsewhere = {**ours, conn_id: replace(ours[conn_id], host="elsewhere", port=1)}
        with pytest.raises(DrillError, match="at elsewhere:1 is not this platform's"):
            own(elsewhere, "nessie", is_external)


def test_what_nobody_edited_follows_the_platform(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(session)
    edited = session.scalar(select(Connection).where(Connection.conn_id == "shudl_kafka"))
    edited.set_extra('{"bootstrap.servers": "kafka.example:9092"}')
    session.commit()
    now = {
        name: replace(e, port=e.port + 1, password="another", extra={**e.extra, "n": 1}) for name, e in own_endpoints().items()
    }
    monkeypatch.setattr(seeds, "own_endpoints", lambda: now)

    assert set(seed(session)) == set(now) - {"shudl_kafka"}
    read = {c.conn_id: from_connection(c) for c in session.scalars(select(Connection))}
    assert read.pop("shudl_kafka").extra == {"bootstrap.servers": "kafka.example:9092"}
    assert read == {name: endpoint for name, endpoint in now.items() if name != "shudl_kafka"}
    assert seed(session) == []
    assert all("another" not in (c.description or "") for c in session.scalars(select(Connection)))
