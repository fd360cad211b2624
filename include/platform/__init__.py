"""The platform: its services, where they live on this machine, and what runs them."""
