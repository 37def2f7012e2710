"""A service for tests: answers over a real channel, deterministic and plausible, and fails when told to.

    with serve_fake() as fake, Client(fake.address) as client:
        fake.fail_next(BusyError("full", retry_after_seconds=1.5))
        with pytest.raises(BusyError):
            client.models()

Uploads fail with `fail_next_uploads`, pairs of a batch with `fail_next_pairs`, batches under way with
`break_next_batch`; `forget_images` is a server that has let go of what was uploaded.

It computes nothing: its maps and scores are made up from the request's digest and mean nothing.
"""

from m2ib_client.testing._service import FakeCall, FakeService, serve_fake

__all__ = ["FakeCall", "FakeService", "serve_fake"]
