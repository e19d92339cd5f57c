# grasp-mirror in a container: docker build -t grasp-mirror . (see "In a container" in README.md)
# 1.95 or newer.
FROM rust:1-slim-trixie AS build
# jemalloc is built with make; the image has only the compiler.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin grasp-mirror

FROM debian:trixie-slim
# Servers and relays are met by TLS, and whom to believe there the system says.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /data grasp-mirror \
    && install --directory --owner=grasp-mirror --mode=700 /data
COPY --from=build /src/target/release/grasp-mirror /usr/local/bin/grasp-mirror
# By number, so that whoever runs it can see that it is not root.
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 7335
# bash speaks TCP by itself; there is no curl in here.
HEALTHCHECK --interval=60s --timeout=10s --start-period=120s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/7335 && printf 'GET /healthz HTTP/1.1\\r\\nHost: 127.0.0.1:7335\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["grasp-mirror"]
CMD ["daemon"]
