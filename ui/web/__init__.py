"""Web serving of the page: accounts, the request guard, checks of uploads and hosts, and served files."""
