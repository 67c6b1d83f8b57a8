"""The tls extension of ASGI, from the SSL_ variables of mod_ssl."""

_VERSIONS = {b"TLSv1": 0x0301, b"TLSv1.1": 0x0302, b"TLSv1.2": 0x0303, b"TLSv1.3": 0x0304}

# RFC 8446, RFC 5289, RFC 7905, RFC 5246, RFC 8422: the names of IANA, and
# behind them those of OpenSSL where they differ.
_CIPHER_SUITES = {
    b"TLS_AES_128_GCM_SHA256": 0x1301,
    b"TLS_AES_256_GCM_SHA384": 0x1302,
    b"TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    b"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02B, b"ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    b"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": 0xC02C, b"ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    b"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": 0xC02F, b"ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    b"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": 0xC030, b"ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    b"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA8, b"ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
    b"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA9, b"ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
    b"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": 0xC023, b"ECDHE-ECDSA-AES128-SHA256": 0xC023,
    b"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": 0xC027, b"ECDHE-RSA-AES128-SHA256": 0xC027,
    b"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": 0xC009, b"ECDHE-ECDSA-AES128-SHA": 0xC009,
    b"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": 0xC00A, b"ECDHE-ECDSA-AES256-SHA": 0xC00A,
    b"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": 0xC013, b"ECDHE-RSA-AES128-SHA": 0xC013,
    b"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": 0xC014, b"ECDHE-RSA-AES256-SHA": 0xC014,
    b"TLS_RSA_WITH_AES_128_GCM_SHA256": 0x009C, b"AES128-GCM-SHA256": 0x009C,
    b"TLS_RSA_WITH_AES_256_GCM_SHA384": 0x009D, b"AES256-GCM-SHA384": 0x009D,
    b"TLS_RSA_WITH_AES_128_CBC_SHA256": 0x003C, b"AES128-SHA256": 0x003C,
    b"TLS_RSA_WITH_AES_128_CBC_SHA": 0x002F, b"AES128-SHA": 0x002F,
    b"TLS_RSA_WITH_AES_256_CBC_SHA": 0x0035, b"AES256-SHA": 0x0035,
}


def describe(get):
    """Returns the value of the extension (version 0.2). get returns a variable
    as bytes, or None. What is not known, as behind a proxy, is None."""
    chain = []
    certificate = get(b"SSL_CLIENT_CERT")
    if certificate:
        chain.append(certificate.decode("latin-1"))
        while True:
            certificate = get(b"SSL_CLIENT_CERT_CHAIN_%d" % (len(chain) - 1))
            if not certificate:
                break
            chain.append(certificate.decode("latin-1"))
    verified = get(b"SSL_CLIENT_VERIFY") or b""
    return {
        "server_cert": _text(get(b"SSL_SERVER_CERT")),
        "client_cert_chain": chain,
        "client_cert_name": _text(get(b"SSL_CLIENT_S_DN")),
        "client_cert_error": _text(verified[7:]) if verified.startswith(b"FAILED:") else None,
        "tls_version": _VERSIONS.get(get(b"SSL_PROTOCOL")),
        "cipher_suite": _CIPHER_SUITES.get(get(b"SSL_CIPHER")),
    }


def _text(value):
    return value.decode("utf-8", "replace") if value else None
