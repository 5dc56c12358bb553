"""What the page has of web serving: accounts, the guard, links, and files that are served."""
