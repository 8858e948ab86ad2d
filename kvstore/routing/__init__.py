"""Who is ready (one view), and the drivers that make proxies agree with it."""
