"""Parts of the page: form fields, players, lists, with their HTML, CSS and JavaScript."""
