# The coordinator. From the top of a clone:
#   docker build -f scripts/docker/coordinator.Dockerfile -t latlas-coordinator .
# docs/install.md says how to run it.
FROM rust:1.95-bookworm AS build
WORKDIR /latlas
COPY . .
RUN cargo build --release --locked -p latlas_coordinator

FROM debian:bookworm-slim
RUN useradd --uid 10001 --system --user-group --home-dir /var/lib/latlas --create-home \
        --shell /usr/sbin/nologin latlas \
    && chmod 700 /var/lib/latlas
COPY --from=build /latlas/target/release/latlas-coordinator /usr/local/bin/latlas-coordinator
USER 10001
VOLUME /var/lib/latlas
EXPOSE 8700
STOPSIGNAL SIGTERM
ENTRYPOINT ["latlas-coordinator"]
# On the loopback of the container: publish it with --network host, or run a proxy with TLS next to it.
CMD ["serve", "--data", "/var/lib/latlas"]
