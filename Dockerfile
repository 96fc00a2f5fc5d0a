# One image for every role. The C compiler is for workers: they build kernels with it.
# BASE is any Debian bookworm; tests/compose.sh makes one where none can be pulled.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN if ! command -v cc >/dev/null; then \
        apt-get update -q && apt-get install -qy --no-install-recommends gcc libc6-dev ca-certificates && rm -rf /var/lib/apt/lists/*; \
    fi \
 && useradd --system --create-home --home-dir /var/lib/aotfarm aotfarm
# Built on the host: cargo build --release --locked
COPY target/release/aotfarm /usr/local/bin/aotfarm
USER aotfarm
WORKDIR /var/lib/aotfarm
VOLUME /var/lib/aotfarm
ENTRYPOINT ["aotfarm"]
CMD ["--help"]
