"""What benchmarks are made of: footage, readers, quality, and what ran them."""
