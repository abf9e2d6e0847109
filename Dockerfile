# countersign in a container: one binary on a minimal runtime, without a shell, as nobody.
#
#   docker build -t countersign .
#
# Both base images can be replaced, by mirrors or by images made on the machine itself:
#   --build-arg BUILD_IMAGE=…    has cargo 1.95, and cmake with a C compiler or apt to install them
#   --build-arg RUNTIME_IMAGE=…  has glibc and libgcc, and CA certificates for sites with public ones
ARG BUILD_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# The engine compiles zlib.
RUN command -v cmake && command -v cc \
    || (apt-get update && apt-get install -y --no-install-recommends cmake gcc libc6-dev make && rm -rf /var/lib/apt/lists/*)
WORKDIR /build
# The dependencies alone: this layer is kept as long as they stay the same.
COPY Cargo.toml Cargo.lock ./
COPY emulator/Cargo.toml emulator/
RUN mkdir -p src benches/compare emulator/src \
    && echo 'fn main() {}' | tee src/main.rs benches/core.rs benches/compare/main.rs > benches/end_to_end.rs \
    && touch src/lib.rs emulator/src/lib.rs \
    && cargo build --release --locked \
    && rm -r src benches emulator/src
COPY proxy.yaml ./
COPY deploy/emulator deploy/emulator
COPY benches benches
COPY emulator emulator
COPY src src
COPY build.rs ./
# The commit, which no checkout tells in here.
ARG REVISION=unknown
# cargo goes by times of change, and those of a checkout may be older than the layer above.
RUN touch src/main.rs src/lib.rs emulator/src/lib.rs && COUNTERSIGN_COMMIT="$REVISION" cargo build --release --locked --bin countersign

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="countersign" \
      org.opencontainers.image.description="A signing reverse proxy for the MindTouch API (NICE CXone Expert)" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/target/release/countersign /usr/local/bin/countersign
# A number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# By the binary itself: there is no shell and no curl in here.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/countersign", "health"]
ENTRYPOINT ["/usr/local/bin/countersign"]
CMD ["run", "--config", "/etc/countersign/proxy.yaml", "--log-format", "json"]
