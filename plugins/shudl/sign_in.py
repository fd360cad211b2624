"""How people sign in to Airflow where Keycloak runs: OpenID Connect, and the four roles of the realm.

``[core] auth_manager = shudl.sign_in.KeycloakSignIn`` (docker/services/airflow/entrypoint.sh). Keycloak is asked at a sign-in
only: Airflow, which starts Keycloak, goes on without it. The built-in user ``admin`` stays, for the command line
(``POST /auth/token``), and for people while Keycloak is down (``/auth/login?password``).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
import time
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
from airflow.api_fastapi.app import AUTH_MANAGER_FASTAPI_APP_PREFIX, get_auth_manager, get_cookie_path
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import is_safe_url
from airflow.configuration import conf
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

log = logging.getLogger(__name__)

CLIENT = "airflow"
ROLES = {"admin": "ADMIN", "engineer": "OP", "analyst": "VIEWER", "viewer": "VIEWER"}
"""Role of the realm → Airflow's, the strongest first."""
COOKIE = "shudl_sign_in"
"""What a sign-in under way must come back with; signed, and gone after :data:`UNDER_WAY_S`."""
UNDER_WAY_S = 600
SIGNED_IN_S = 3600
"""After which Keycloak is asked again; who is signed in there sees nothing of it, who was removed is out."""
TIMEOUT_S = 10
CLOCK_S = 30


class Realm:
    """The realm as the environment says: ``OIDC_ISSUER`` is where browsers find it, ``OIDC_URL`` where Airflow does."""

    def __init__(self) -> None:
        self.issuer, self.url = os.environ["OIDC_ISSUER"], os.environ["OIDC_URL"]
        self.secret = Path(os.environ["OIDC_AIRFLOW_FILE"]).read_text().strip()
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=httpx.create_ssl_context())

    @cached_property
    def _keys(self) -> jwt.PyJWKClient:
        context = httpx.create_ssl_context()
        return jwt.PyJWKClient(f"{self.url}/protocol/openid-connect/certs", ssl_context=context, timeout=TIMEOUT_S)

    def address(self, kind: str, **params: str) -> str:
        return f"{self.issuer}/protocol/openid-connect/{kind}?{urlencode(params)}"

    def claims(self, code: str, verifier: str, nonce: str, redirect_uri: str) -> dict[str, Any]:
        """Who the code stands for. Raises httpx.HTTPError, jwt.PyJWTError."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        answer = self._http.post(f"{self.url}/protocol/openid-connect/token", data=form, auth=(CLIENT, self.secret))
        token = answer.raise_for_status().json()["id_token"]
        key = self._keys.get_signing_key_from_jwt(token).key
        claims = jwt.decode(token, key, algorithms=["RS256"], audience=CLIENT, issuer=self.issuer, leeway=CLOCK_S)
        if not secrets.compare_digest(str(claims.get("nonce")), nonce):
            raise jwt.InvalidTokenError("it was made for another sign-in")
        return claims


def role_of(claims: dict[str, Any]) -> str | None:
    """Airflow's role of somebody with these claims; None without a role of the realm."""
    held = claims.get("roles") or []
    return next((role for name, role in ROLES.items() if name in held), None)


def _key() -> str:
    return hashlib.sha256(f"{COOKIE} {conf.get('api', 'secret_key')}".encode()).hexdigest()


def _callback(request: Request) -> str:
    """Where Keycloak sends the browser back to: the address that it used, which the realm knows or refuses."""
    return f"https://{request.url.netloc}{request.scope.get('root_path', '').rstrip('/')}/callback"


def routes(realm: Realm) -> APIRouter:
    router = APIRouter()

    @router.get("/login", include_in_schema=False)
    def login(request: Request, next: str | None = None) -> Response:
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        target = next if next and is_safe_url(next, request=request) else get_cookie_path()
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "next": target, "exp": int(time.time()) + UNDER_WAY_S}
        address = realm.address(
            "auth",
            client_id=CLIENT,
            response_type="code",
            scope="openid",
            redirect_uri=_callback(request),
            state=state,
            nonce=nonce,
            code_challenge=challenge,
            code_challenge_method="S256",
        )
        answer = RedirectResponse(address, 302)
        path = AUTH_MANAGER_FASTAPI_APP_PREFIX
        cookie = jwt.encode(kept, _key(), "HS256")
        answer.set_cookie(COOKIE, cookie, max_age=UNDER_WAY_S, path=path, secure=True, httponly=True, samesite="lax")
        return answer

    @router.get("/callback", include_in_schema=False)
    def callback(request: Request, state: str = "", code: str = "", error: str = "") -> Response:
        again = "sign in again"
        if error:
            raise HTTPException(403, f"Keycloak refused: {error}; {again}")
        try:
            kept = jwt.decode(request.cookies.get(COOKIE, ""), _key(), algorithms=["HS256"])
        except jwt.PyJWTError:
            raise HTTPException(400, f"this sign-in was not begun here, or took too long: {again}") from None
        if not secrets.compare_digest(kept["state"], state):
            raise HTTPException(400, f"this is the answer to another sign-in: {again}")
        try:
            claims = realm.claims(code, kept["verifier"], kept["nonce"], _callback(request))
        except (httpx.HTTPError, jwt.PyJWTError) as failure:
            log.warning("sign-in by Keycloak failed: %s: %s", type(failure).__name__, failure)
            raise HTTPException(502, f"Keycloak's answer cannot be used ({type(failure).__name__}): {again}") from None
        name = claims["preferred_username"]
        if (role := role_of(claims)) is None:
            raise HTTPException(403, f"{name} has no role in ShuDL: ask an admin for one of {', '.join(reversed(ROLES))}")
        user = SimpleAuthManagerUser(username=name, role=role)
        token = get_auth_manager().generate_jwt(user, expiration_time_in_seconds=SIGNED_IN_S)
        answer = RedirectResponse(kept["next"], 302)
        answer.set_cookie(COOKIE_NAME_JWT_TOKEN, token, path=get_cookie_path(), secure=True, httponly=True, samesite="lax")
        answer.delete_cookie(COOKIE, path=AUTH_MANAGER_FASTAPI_APP_PREFIX, secure=True, httponly=True, samesite="lax")
        return answer

    @router.get("/sign-out", include_in_schema=False)
    def sign_out(request: Request) -> Response:
        """Out of Airflow and, after a question, out of Keycloak."""
        back = _callback(request)
        answer = RedirectResponse(realm.address("logout", client_id=CLIENT, post_logout_redirect_uri=back), 302)
        answer.delete_cookie(COOKIE_NAME_JWT_TOKEN, path=get_cookie_path(), secure=True, httponly=True, samesite="lax")
        return answer

    return router


class KeycloakSignIn(SimpleAuthManager):
    """Airflow's own roles and what they may do; who has which comes from Keycloak."""

    @staticmethod
    def _looks_like_production(**_: Any) -> bool:
        """It warns of passwords in a file that it makes. There is one, of the user admin, which the entrypoint makes."""
        return False

    def get_url_logout(self) -> str:
        return f"{AUTH_MANAGER_FASTAPI_APP_PREFIX}/sign-out"

    def get_fastapi_app(self) -> FastAPI:
        app = super().get_fastapi_app()
        password_page = next(route for route in app.routes if getattr(route, "name", "") == "webapp")
        ours = FastAPI()
        ours.include_router(routes(Realm()))
        own = [route for route in ours.routes if getattr(route, "path", "") in ("/login", "/callback", "/sign-out")]
        for route in own:
            if route.path == "/login":
                route.app = _unless_password(route.app, password_page)
        app.router.routes[:0] = own
        return app


def _unless_password(by_keycloak: Any, password_page: Any) -> Any:
    """ASGI: ``/login?password`` is the form of the built-in user, everything else Keycloak's."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if b"password" in scope.get("query_string", b"").split(b"&"):
            scope["path_params"] = {"rest_of_path": "login"}
            await password_page.app(scope, receive, send)
        else:
            await by_keycloak(scope, receive, send)

    return app
