"""Whether a Leek API is up, and would take this application's documents (contract, section 1)."""

from typing import Final

import requests
import urllib3

from leekfanout.configuration.config import Subscription
from leekfanout.delivery.outcome import Answer, is_ready
from leekfanout.delivery.poster import PROCESS_PATH, headers_of
from leekfanout.health.check import Check, Kind, trouble
from leekfanout.health.network import TIMEOUT_S, network_trouble
from leekfanout.redaction import redact_url

ANSWER_MAX_BYTES: Final = 65_536


def check_api_of(subscription: Subscription) -> Check:
    """Ask with OPTIONS whether the API is up, and with GET whether the application is ready.

    Redirects are not followed, since they would carry the key elsewhere.
    """
    place = redact_url(subscription.api_url)
    try:
        with _session(subscription) as session:
            up = _ask(session, "OPTIONS", subscription)
            found = _no_service(up, place)
            if found is not None:
                return found
            return _readiness(_ask(session, "GET", subscription), up, subscription, place)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        return _api_trouble(error, place)


def _session(subscription: Subscription) -> requests.Session:
    session = requests.Session()
    session.headers.update(headers_of(subscription))
    tls = subscription.api_tls
    if tls is not None:
        session.verify = tls.ca or True
        session.cert = (tls.cert, tls.key) if tls.cert and tls.key else tls.cert
    # Proxies and CA bundles as the sender takes them from the environment. No more than that: a
    # .netrc would add credentials that nobody has configured here.
    settings = session.merge_environment_settings(
        subscription.api_url, {}, None, session.verify, session.cert
    )
    session.proxies, session.verify = settings["proxies"], settings["verify"]
    session.trust_env = False
    return session


def _ask(session: requests.Session, method: str, subscription: Subscription) -> Answer:
    url = subscription.api_url + PROCESS_PATH
    with session.request(
        method, url, timeout=TIMEOUT_S, allow_redirects=False, stream=True
    ) as response:
        body = response.raw.read(ANSWER_MAX_BYTES, decode_content=True)
        return Answer(response.status_code, response.headers, body)


def _no_service(answer: Answer, place: str) -> Check | None:
    """Return why nobody there would take a document, whatever the application; None if it may be."""
    status = answer.status or 0
    if 300 <= status < 400:
        where = redact_url(answer.headers.get("Location", "nowhere"))
        return trouble(
            Kind.REDIRECT,
            f"{place} redirects to {where[:200]}, and redirects are not followed.",
            "Write the address of the API itself into api_url.",
        )
    if status >= 500 or status in {408, 425, 429}:
        return trouble(
            Kind.BUSY,
            f"{place} can't serve at the moment (HTTP {status}).",
            "Try again; if it stays so, look at the logs of the API and its search backend.",
        )
    return None


def _readiness(answer: Answer, up: Answer, subscription: Subscription, place: str) -> Check:
    status = answer.status or 0
    found = _no_service(answer, place)
    if found is not None:
        return found
    html = "html" in answer.headers.get("Content-Type", "").lower()
    if html or (status == 404 and up.status != 200):
        return trouble(
            Kind.PROTOCOL,
            f"{place} is no Leek API: it answers HTTP {status} to {PROCESS_PATH}.",
            "Check api_url; a path in it must be the API's own base.",
        )
    if is_ready(answer):
        return Check(Kind.OK, f"{place} is ready for the application {subscription.app_name}.")
    if status in {401, 403}:
        return trouble(
            Kind.KEY,
            f"{place} refuses the key of the application {subscription.app_name}.",
            "Copy app_key anew from the application's settings in Leek.",
        )
    if status == 404:
        return trouble(
            Kind.APPLICATION,
            f"{place} knows no application {subscription.app_name} of the organisation "
            f"{subscription.org_name}.",
            "Check org_name and app_name, or create the application in Leek.",
        )
    if status == 400:
        return trouble(
            Kind.HEADERS,
            f"{place} misses headers that leekfanout sends (HTTP 400).",
            "Look for a proxy in between that removes headers beginning with x-leek-.",
        )
    return trouble(Kind.UNEXPECTED, f"{place} answers HTTP {status}, which isn't expected.")


def _api_trouble(error: Exception, place: str) -> Check:
    if isinstance(error, requests.exceptions.ProxyError):
        return trouble(
            Kind.UNREACHABLE,
            f"The proxy in front of {place} can't be used.",
            "Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY.",
        )
    if not isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError)):
        # requests looks for the files before it connects, and raises an OSError of its own.
        return trouble(Kind.TLS, f"A file of certificates for {place} can't be read.")
    if isinstance(error, requests.exceptions.ReadTimeout):
        error = TimeoutError()
    found = network_trouble(error, place)
    if found is not None:
        return found
    return trouble(Kind.PROTOCOL, f"{place} takes a connection, but doesn't speak HTTP.")
