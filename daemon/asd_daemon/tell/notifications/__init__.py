"""Messages to people: mail, chat, push services and webhooks, by the addresses of a file."""
