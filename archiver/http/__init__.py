"""HTTP/1.1 on libcurl, and the policy of TLS trust."""
