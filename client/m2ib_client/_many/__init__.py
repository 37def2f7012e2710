"""Many pairs over one stream: what to send when is `ledger`'s to say, the two shells are `threaded` and `looped`."""
