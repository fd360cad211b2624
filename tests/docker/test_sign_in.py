"""Who may do what: each cell of the table in docs/security.md, tried by somebody with that role on the running platform.

Grafana and Kafka UI are not run here: what they would decide is worked out from their own settings and what Keycloak says of
the person. Run on demand, as all of the Compose platform's own tests.
"""

from __future__ import annotations

import configparser
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import boto3
import httpx
import jmespath
import pytest
import requests
import trino.auth
import trino.dbapi
import yaml
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from jmespath.exceptions import JMESPathTypeError
from trino.exceptions import TrinoUserError

from include.platform.realm import REALM, described
from include.platform.settings import ROOT
from tests.compose_platform import Compose
from tests.docker.people import CA, Person, Site, follow, trusting

SERVICES = ROOT / "docker" / "services"
PAGE = (ROOT / "docs" / "security.md").read_text()
ROLES = [role["name"] for role in described()["roles"]]
TABLE = "sign_in_check"
BRANCH = "sign-in-check"
KEY = "_check/sign-in"
GROUPS = {**{role: role for role in ROLES}, "nobody": None}
"""A person for each role, and one who has an account and no role."""


def cells() -> Iterator[tuple[str, str, str, bool]]:
    """Service, deed, role and whether it may, of each cell."""
    rows = PAGE.partition("<!-- people -->")[2].partition("<!-- end of people -->")[0].strip().splitlines()
    head, _, *body = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    assert head == ["service", "may", *ROLES]
    for service, deed, *may in body:
        assert set(may) <= {"yes", "no"} and len(may) == len(ROLES), (service, deed)
        yield from ((service, deed, role, word == "yes") for role, word in zip(ROLES, may, strict=True))


CELLS = list(cells())


# ── the platform, and people ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def site(compose: Compose) -> Site:
    return Site(compose)


@pytest.fixture(scope="module")
def people(site: Site) -> Iterator[dict[str, Person]]:
    with site.people(GROUPS) as made, tables(site), branch(site, made["admin"]):
        yield made
    with site.admin() as admin:
        assert [user for user in admin.find(f"/{REALM}/users?max=200") if user["username"].startswith("test-")] == []


@contextmanager
def asked(site: Site, auth: trino.auth.Authentication | None, user: str | None) -> Iterator[Any]:
    host, port = site.address("trino")
    session = requests.Session()
    session.verify, session.trust_env = str(CA), False  # else REQUESTS_CA_BUNDLE of who runs the tests goes before it
    options = {"http_scheme": "https", "catalog": "lake", "http_session": session}
    with closing(trino.dbapi.connect(host=host, port=port, user=user, auth=auth, **options)) as connection:
        yield connection.cursor()


@contextmanager
def tables(site: Site) -> Iterator[None]:
    """One table among the marts, and one that is none, by the platform's own user."""
    names = [f"{schema}.{TABLE}" for schema in ("marts", "audit")]
    with asked(site, trino.auth.BasicAuthentication("shudl", site.compose.secrets()["trino"]), "shudl") as cursor:
        for name in names:
            for statement in (
                f"CREATE SCHEMA IF NOT EXISTS {name.partition('.')[0]}",
                f"DROP TABLE IF EXISTS {name}",
                f"CREATE TABLE {name} AS SELECT 1 AS n",
            ):
                cursor.execute(statement).fetchall()
        try:
            yield
        finally:
            for name in names:
                cursor.execute(f"DROP TABLE {name}").fetchall()


@contextmanager
def branch(site: Site, admin: Person) -> Iterator[None]:
    """A branch for trying things, an object in the lake, and the branch ``published``, which a lake without marts lacks."""
    s3 = objects(site, secrets(site))
    s3.put_object(Bucket="lake", Key=KEY, Body=b"1")
    with nessie(admin) as http:
        for name in (BRANCH, "published"):
            if http.get(f"/api/v2/trees/{name}").status_code == 404:
                assert make_branch(http, name).is_success
        try:
            yield
        finally:
            drop_branch(http, BRANCH)
            s3.delete_object(Bucket="lake", Key=KEY)


def secrets(site: Site) -> dict[str, str]:
    found = site.compose.secrets()
    return {"aws_access_key_id": found["s3_access_key"], "aws_secret_access_key": found["s3_secret_key"]}


def objects(site: Site, keys: dict[str, str]) -> Any:
    options = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
    return boto3.client("s3", endpoint_url=site.url("s3"), region_name="us-east-1", verify=str(CA), config=options, **keys)


# ── deeds: each returns whether the person may ───────────────────────────────────────────────────────────


def allowed(answer: httpx.Response) -> bool:
    """Done, or refused for want of rights, which Nessie's Iceberg API says with 500; anything else is no answer to that."""
    refused = answer.status_code == 403 or (answer.status_code == 500 and "AccessCheckException" in answer.text)
    assert answer.is_success or refused, f"{answer.url}: HTTP {answer.status_code}: {answer.text[:300]}"
    return answer.is_success


def airflow_get(path: str) -> Callable[[Person], bool]:
    return lambda person: allowed(person.airflow.get(f"/api/v2{path}"))


def airflow_pause(person: Person) -> bool:
    """Pause what is paused."""
    path = "/api/v2/dags/platform_stop"
    body = {"is_paused": person.airflow.get(path).raise_for_status().json()["is_paused"]}
    return allowed(person.airflow.patch(path, params={"update_mask": "is_paused"}, json=body))


def airflow_write(person: Person) -> bool:
    made = person.airflow.post("/api/v2/variables", json={"key": f"check_{person.name}", "value": "1"})
    if may := allowed(made):
        assert person.airflow.delete(f"/api/v2/variables/check_{person.name}").is_success
    return may


def says(statement: str) -> Callable[[Person], bool]:
    """Whether Trino does it, asked with the person's token."""

    def deed(person: Person) -> bool:
        token = person.token("trino")["access_token"]
        with asked(person.site, trino.auth.JWTAuthentication(token), None) as cursor:
            try:
                cursor.execute(statement).fetchall()
            except TrinoUserError as error:
                assert error.error_name == "PERMISSION_DENIED", error
                return False
        return True

    return deed


@contextmanager
def nessie(person: Person) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=person.site.url("nessie_access"), verify=trusting(), timeout=30, headers=person.bearer("nessie")
    ) as http:
        yield http


def nessie_get(path: str) -> Callable[[Person], bool]:
    def deed(person: Person) -> bool:
        with nessie(person) as http:
            return allowed(http.get(path))

    return deed


def head(http: httpx.Client, name: str) -> str:
    return http.get(f"/api/v2/trees/{name}").raise_for_status().json()["reference"]["hash"]


def make_branch(http: httpx.Client, name: str) -> httpx.Response:
    source = {"type": "BRANCH", "name": "main", "hash": head(http, "main")}
    return http.post("/api/v2/trees", params={"name": name, "type": "BRANCH"}, json=source)


def drop_branch(http: httpx.Client, name: str) -> httpx.Response:
    return http.delete(f"/api/v2/trees/{name}@{head(http, name)}")


def nessie_branch(person: Person) -> bool:
    with nessie(person) as http:
        if not allowed(http.get("/api/v2/trees/main")):
            return False
        if may := allowed(make_branch(http, person.name)):
            assert drop_branch(http, person.name).is_success
        return may


def nessie_write(person: Person) -> bool:
    with nessie(person) as http:
        namespace = person.name.replace("-", "_")
        return allowed(http.post(f"/iceberg/v1/{BRANCH}/namespaces", json={"namespace": [namespace], "properties": {}}))


def nessie_move(person: Person) -> bool:
    """Move it to where it is."""
    with nessie(person) as http:
        if not allowed(http.get("/api/v2/trees/published")):
            return False
        commit = head(http, "published")
        target = {"type": "BRANCH", "name": "published", "hash": commit}
        return allowed(http.put(f"/api/v2/trees/published@{commit}", json=target))


def keys(person: Person) -> dict[str, str] | None:
    """Keys of S3 for a token; None when its person gets none."""
    form = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "DurationSeconds": "900"}
    answer = httpx.post(
        person.site.url("s3"), data={**form, "WebIdentityToken": person.token("minio")["access_token"]}, verify=trusting()
    )
    if answer.is_error:
        assert "policy" in answer.text and answer.status_code in (400, 403), answer.text
        return None
    space = {"s": "https://sts.amazonaws.com/doc/2011-06-15/"}
    found = ElementTree.fromstring(answer.text).find(".//s:Credentials", space)
    names = {"aws_access_key_id": "AccessKeyId", "aws_secret_access_key": "SecretAccessKey", "aws_session_token": "SessionToken"}
    return {key: found.findtext(f"s:{name}", namespaces=space) for key, name in names.items()}


def s3(do: Callable[[Any], object]) -> Callable[[Person], bool]:
    def deed(person: Person) -> bool:
        if (own := keys(person)) is None:
            return False
        try:
            do(objects(person.site, own))
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied", error
            return False
        return True

    return deed


def s3_administers(person: Person) -> bool:
    if (own := keys(person)) is None:
        return False
    request = AWSRequest("GET", f"{person.site.url('s3')}/minio/admin/v3/info")
    signing = Credentials(own["aws_access_key_id"], own["aws_secret_access_key"], own["aws_session_token"])
    S3SigV4Auth(signing, "s3", "us-east-1").add_auth(request)
    return allowed(httpx.get(request.url, headers=dict(request.headers.items()), verify=trusting()))


def grafana(least: str) -> Callable[[Person], bool]:
    """By Grafana's own expression, in the language that it has it in."""
    ini = configparser.RawConfigParser()
    ini.read(SERVICES / "grafana" / "grafana.ini")
    expression, order = ini["auth.generic_oauth"]["role_attribute_path"], ["Viewer", "Editor", "GrafanaAdmin"]

    def deed(person: Person) -> bool:
        try:
            role = jmespath.search(expression, person.userinfo("grafana"))
        except JMESPathTypeError:  # no roles at all, which Grafana, being strict, refuses as well
            return False
        return role in order and order.index(role) >= order.index(least)

    return deed


def kafka_ui(resource: str, action: str) -> Callable[[Person], bool]:
    """By Kafka UI's own rules."""
    *_, settings = yaml.safe_load_all((SERVICES / "kafka-ui" / "config" / "application.yml").read_text())
    claim = settings["auth"]["oauth2"]["client"]["keycloak"]["custom-params"]["roles-field"]

    def deed(person: Person) -> bool:
        held = person.userinfo("kafka-ui").get(claim, [])
        return any(
            permission["resource"] == resource and action in permission["actions"]
            for role in settings["rbac"]["roles"]
            if any(subject["value"] in held for subject in role["subjects"])
            for permission in role["permissions"]
        )

    return deed


def keycloak_users(person: Person) -> bool:
    headers = person.bearer("security-admin-console")
    return allowed(httpx.get(f"{person.site.keycloak}/admin/realms/{REALM}/users", headers=headers, verify=trusting()))


DEEDS: dict[tuple[str, str], Callable[[Person], bool]] = {
    ("Airflow", "see DAGs, runs and logs"): airflow_get("/dags"),
    ("Airflow", "run and pause DAGs"): airflow_pause,
    ("Airflow", "see connections and variables"): airflow_get("/connections"),
    ("Airflow", "change them"): airflow_write,
    ("Trino", "read marts"): says(f"SELECT * FROM lake.marts.{TABLE}"),
    ("Trino", "read every table"): says(f"SELECT * FROM lake.audit.{TABLE}"),
    ("Trino", "write and make tables"): says(f"INSERT INTO lake.audit.{TABLE} VALUES 2"),
    ("Trino", "see everybody's queries"): says("SELECT count(*) FROM system.runtime.queries"),
    ("Nessie", "see branches and their history"): nessie_get("/api/v2/trees/main/history"),
    ("Nessie", "read marts' metadata"): nessie_get(f"/iceberg/v1/main/namespaces/marts/tables/{TABLE}"),
    ("Nessie", "read every table's metadata"): nessie_get(f"/iceberg/v1/main/namespaces/audit/tables/{TABLE}"),
    ("Nessie", "change tables"): nessie_write,
    ("Nessie", "make, move and drop branches"): nessie_branch,
    ("Nessie", "move `main` and `published`"): nessie_move,
    ("S3 (MinIO)", "read objects"): s3(lambda client: client.get_object(Bucket="lake", Key=KEY)),
    ("S3 (MinIO)", "write objects"): s3(lambda client: client.put_object(Bucket="lake", Key=KEY, Body=b"1")),
    ("S3 (MinIO)", "administer it"): s3_administers,
    ("Grafana", "see dashboards"): grafana("Viewer"),
    ("Grafana", "edit dashboards"): grafana("Editor"),
    ("Grafana", "administer it"): grafana("GrafanaAdmin"),
    ("Kafka UI", "see topics and consumers"): kafka_ui("topic", "VIEW"),
    ("Kafka UI", "read records and schemas"): kafka_ui("topic", "MESSAGES_READ"),
    ("Kafka UI", "see connectors"): kafka_ui("connect", "VIEW"),
    ("Keycloak", "manage people and groups"): keycloak_users,
}


def test_every_row_is_tried() -> None:
    assert {(service, deed) for service, deed, *_ in CELLS} == set(DEEDS)


@pytest.mark.parametrize("service, deed, role, may", CELLS, ids=[f"{s}-{d}-{r}" for s, d, r, _ in CELLS])
def test_cell(people: dict[str, Person], service: str, deed: str, role: str, may: bool) -> None:
    assert DEEDS[service, deed](people[role]) is may


# ── who has no business here ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("row", DEEDS, ids=[f"{s}-{d}" for s, d in DEEDS])
def test_an_account_without_a_role_may_nothing(people: dict[str, Person], row: tuple[str, str]) -> None:
    person = people["nobody"]
    if row[0] == "Airflow":
        with person.browser() as http:
            http.base_url = person.site.url("airflow")
            landed = follow(http, person.fill_in(http, http.get("/auth/login")))
            assert landed.status_code == 403 and "has no role in ShuDL" in landed.text
            assert http.get("/api/v2/dags").status_code == 401
        return
    assert not DEEDS[row](person)


@pytest.mark.parametrize(
    "port, path",
    [("airflow", "/api/v2/dags"), ("trino", "/v1/statement"), ("nessie_access", "/api/v2/trees"), ("s3", "/lake/")],
)
@pytest.mark.parametrize("token", ["", "forged", "of another service"])
def test_strangers_are_refused(people: dict[str, Person], site: Site, port: str, path: str, token: str) -> None:
    """Without a token, with one that nobody signed, and with an admin's that was made for Grafana."""
    real = people["admin"].token("grafana")["access_token"]
    shown = {"": None, "forged": real[: real.rindex(".") + 1] + "A" * 342, "of another service": real}[token]
    headers = {"Authorization": f"Bearer {shown}"} if shown else {}
    method = "POST" if port == "trino" else "GET"
    answer = httpx.request(method, f"{site.url(port)}{path}", headers=headers, content=b"SELECT 1", verify=trusting())
    assert answer.status_code in ((400, 403) if port == "s3" else (401, 403)), answer.text
    if port == "s3" and shown:
        form = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "WebIdentityToken": shown}
        assert httpx.post(site.url("s3"), data=form, verify=trusting()).is_error


def test_nobody_can_call_himself_the_platforms_user(site: Site) -> None:
    """Trino's user shudl has a password; somebody of that name in the realm is not he."""
    with site.people({"someone": "admin"}) as made, site.admin() as admin:
        person = made["someone"]
        own = admin.find(f"/{REALM}/users?username={person.name}&exact=true")[0]
        admin.send("PUT", f"/{REALM}/users/{own['id']}", {**own, "email": "other@shudl.invalid"})
        body = {"username": "shudl", "enabled": True, "firstName": "S", "lastName": "S", "email": "s@shudl.invalid"}
        password = {"type": "password", "value": person.password, "temporary": False}
        admin.send("POST", f"/{REALM}/users", {**body, "emailVerified": True, "credentials": [password], "groups": ["admin"]})
        try:
            token = Person(site, "shudl", person.password).token("trino")["access_token"]
            answer = httpx.post(
                f"{site.url('trino')}/v1/statement",
                content=b"SELECT 1",
                headers={"Authorization": f"Bearer {token}"},
                verify=trusting(),
            )
            assert answer.status_code in (401, 403), answer.text
        finally:
            (made_up,) = admin.find(f"/{REALM}/users?username=shudl&exact=true")
            admin.send("DELETE", f"/{REALM}/users/{made_up['id']}", None)


def test_trinos_page_leads_to_keycloak_and_back(people: dict[str, Person], site: Site) -> None:
    person = people["analyst"]
    with person.browser() as http:
        landed = follow(http, person.fill_in(http, http.get(f"{site.url('trino')}/ui/")))
        assert landed.status_code == 200 and "/ui/" in str(landed.url)
        told = http.get(f"{site.url('trino')}/ui/api/stats")
        assert told.is_success and "runningQueries" in told.text


def test_signing_out_ends_it(site: Site, people: dict[str, Person]) -> None:
    person = Person(site, people["viewer"].name, people["viewer"].password)
    http = person.airflow
    assert http.get("/api/v2/dags").is_success
    out = http.get("/api/v2/auth/logout")
    while out.is_redirect and out.next_request.url.host == site.host and not out.next_request.url.path.startswith("/realms/"):
        out = http.send(http.build_request("GET", out.next_request.url))
    assert out.next_request.url.path == f"/realms/{REALM}/protocol/openid-connect/logout"
    assert http.get("/api/v2/dags").status_code == 401


def test_what_was_begun_elsewhere_is_not_taken(people: dict[str, Person], site: Site) -> None:
    """The answer to another browser's sign-in signs nobody in."""
    person = people["admin"]
    with person.browser() as theirs, person.browser() as mine:
        answer = person.fill_in(theirs, theirs.get(f"{site.url('airflow')}/auth/login"))
        refused = mine.get(answer.headers["location"])
        assert refused.status_code == 400 and "not begun here" in refused.text
        mine.get(f"{site.url('airflow')}/auth/login")
        refused = mine.get(answer.headers["location"])
        assert refused.status_code == 400 and "another sign-in" in refused.text


def test_the_platform_itself_needs_no_keycloak(compose: Compose, site: Site) -> None:
    """The command line, engines and who is signed in go on while Keycloak is down."""
    with site.people({"someone": "viewer"}) as made:
        person = made["someone"]
        http, token = person.airflow, person.token("trino")["access_token"]
        assert says("SELECT 1")(person)
        compose.compose("stop", "keycloak")
        try:
            assert http.get("/api/v2/dags").is_success
            with asked(site, trino.auth.JWTAuthentication(token), None) as cursor:
                assert cursor.execute("SELECT 1").fetchall() == [[1]]
            basic = trino.auth.BasicAuthentication("shudl", compose.secrets()["trino"])
            with asked(site, basic, "shudl") as cursor:
                assert cursor.execute("SHOW SCHEMAS FROM lake").fetchall()
            asking = {"username": "admin", "password": compose.secrets()["airflow_admin"]}
            got = httpx.post(f"{site.url('airflow')}/auth/token", json=asking, verify=trusting())
            assert got.status_code == 201
            page = httpx.get(f"{site.url('airflow')}/auth/login?password", verify=trusting())
            assert page.status_code == 200 and "<script" in page.text
        finally:
            compose.compose("up", "-d", "--wait", "--no-recreate", "keycloak", timeout_s=600)


def test_the_realm_is_made_once(compose: Compose, site: Site) -> None:
    """Made again it is the same, and people stay."""

    def seen() -> str:
        with site.admin() as admin:
            wanted = {client["clientId"] for client in described()["clients"]}
            clients = [client for client in admin.find(f"/{REALM}/clients") if client["clientId"] in wanted]
            roles = {name: admin.find(f"/{REALM}/roles/{name}/composites") for name in ROLES}
            users = [u["username"] for u in admin.find(f"/{REALM}/users?max=200")]
        return re.sub(r'"(access|attributes)": \{[^}]*\}', "", json.dumps([clients, roles, users], sort_keys=True))

    with site.people({"someone": "engineer"}) as made:
        before = seen()
        compose.compose("run", "--rm", "-T", "--no-deps", "keycloak-realm", timeout_s=180)
        assert seen() == before
        assert says("SELECT 1")(made["someone"])
