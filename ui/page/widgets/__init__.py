"""Parts of the page: form fields, player, lists, with their HTML, CSS and JavaScript."""
