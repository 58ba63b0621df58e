"""What composes both programs. Neither of them imports it."""
