"""The command `kerf`: one file a verb, put together in `sdk.cli.main`."""
