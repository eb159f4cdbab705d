# The agent for CPU boxes. From the top of a clone:
#   docker build -f scripts/docker/agent.Dockerfile -t latlas-agent .
# docs/install.md says how to run it, and what a container does to a measurement.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /latlas
COPY . .
ENV LATLAS_TORCH=cpu
RUN ./scripts/setup \
    && cargo build --release --locked -p latlas_agent \
    && mkdir -p /out \
    && cp target/release/latlas-agent /out/ \
    && ./scripts/copy-libtorch .libtorch/lib /out/libtorch

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --system --user-group --home-dir /var/lib/latlas-agent --create-home \
        --shell /usr/sbin/nologin latlas-agent
COPY --from=build /out/libtorch /usr/local/lib/latlas/libtorch
COPY --from=build /out/latlas-agent /usr/local/bin/latlas-agent
ENV LD_LIBRARY_PATH=/usr/local/lib/latlas/libtorch
USER 10001
VOLUME /var/lib/latlas-agent
STOPSIGNAL SIGTERM
ENTRYPOINT ["latlas-agent"]
CMD ["run", "--state", "/var/lib/latlas-agent"]
