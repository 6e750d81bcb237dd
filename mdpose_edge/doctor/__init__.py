"""What is installed here and whether it works; nothing is installed or changed."""
