"""Signs in to ElastiCache as an IAM user.

The password is a signed request that lives for a quarter of an hour. There is no secret to keep or
to rotate: a process with the role's credentials, and the permission elasticache:Connect, signs.
The form is documented under "Authenticating with IAM" in the ElastiCache developer guide.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from shortlist.recsys.errors import StoreUnavailable

TOKEN_SECONDS = 900
"""How long a token signs in; the connection then lives on, for twelve hours at most."""


class IamCredentials:
    """Gives redis-py a new token for each connection."""

    def __init__(self, user: str, cache: str) -> None:
        """user: of the cache; cache: the serverless cache's name.

        The region is the environment's.
        """
        from botocore.session import Session

        # Its credentials are read when a connection opens: a resumed snapshot has newer ones.
        self._session: Any = Session()
        self._user, self._cache = user, cache
        self._region = self._session.get_config_variable("region")

    def get_credentials(self) -> tuple[str, str]:
        """The user and the token.

        Raises:
            StoreUnavailable: there are no AWS credentials or no region.
        """
        from botocore.exceptions import BotoCoreError

        try:
            return self._user, self._token()
        except BotoCoreError as error:
            raise StoreUnavailable(
                f"cache user {self._user!r} cannot sign in by IAM ({error}): see its role"
            ) from error

    async def get_credentials_async(self) -> tuple[str, str]:
        """As `get_credentials`, for redis-py's other client."""
        return self.get_credentials()

    def _token(self) -> str:
        from botocore.model import ServiceId
        from botocore.signers import RequestSigner

        credentials = self._session.get_credentials()
        if credentials is None or self._region is None:
            lacks = "credentials" if credentials is None else "region"
            raise StoreUnavailable(
                f"cache user {self._user!r} signs in by IAM, and there is no AWS {lacks}: "
                "give AWS_DEFAULT_REGION and a role"
            )
        events = self._session.get_component("event_emitter")
        signer = RequestSigner(
            ServiceId("elasticache"), self._region, "elasticache", "v4", credentials, events
        )
        query = {"Action": "connect", "User": self._user, "ResourceType": "ServerlessCache"}
        request = {
            "method": "GET",
            "url": f"https://{self._cache}/?{urlencode(query)}",
            "body": {},
            "headers": {},
            "context": {},
        }
        signed = signer.generate_presigned_url(
            request, "connect", expires_in=TOKEN_SECONDS, region_name=self._region
        )
        return str(signed).removeprefix("https://")  # the cache expects it without a scheme
