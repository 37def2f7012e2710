# syntax=docker/dockerfile:1
# The server, alone: the wheels of proto and server and what they depend on. Models are mounted, never baked in.
#
#   docker build --build-arg DEVICE=cpu -t m2ib-server:cpu .
#   docker build --build-arg DEVICE=gpu -t m2ib-server:gpu .
#
# It listens on every interface, so it refuses to start without a certificate (M2IB_TLS_CERTIFICATE and M2IB_TLS_KEY, both
# mounted) unless M2IB_INSECURE=true says that plaintext is meant: docs/operations/security.md. Its health is told in
# plaintext, within the container alone, on M2IB_HEALTH_LISTEN; for a kubelet's gRPC probes set that to 0.0.0.0:50052.
#
# For the CPU image give pip an index that has CPU wheels of torch (--build-arg PIP_EXTRA_INDEX_URL=...); without one
# the image works, with gigabytes of CUDA libraries that it never uses.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG DEVICE=cpu

FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /source
COPY proto proto
COPY server server
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels ./proto ./server

FROM ${PYTHON_IMAGE} AS environment
ARG DEVICE
ARG PIP_EXTRA_INDEX_URL
COPY constraints.txt /constraints.txt
COPY --from=wheels /wheels /wheels
# By path: by name, pip would take a distribution of the same name and a higher version from the index.
RUN python -m venv /opt/m2ib \
    && /opt/m2ib/bin/pip install --no-cache-dir --constraint /constraints.txt \
       /wheels/m2ib_proto-*.whl "$(ls /wheels/m2ib_server-*.whl)[${DEVICE}]"

FROM ${PYTHON_IMAGE} AS cpu
ENV M2IB_DEVICE=cpu

FROM ${PYTHON_IMAGE} AS gpu
ENV M2IB_DEVICE=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${DEVICE} AS final
# A new named volume that is mounted on /state, as docs/deploy/compose does, takes its owner from here.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin m2ib \
    && install -d -o 10001 -g 10001 /state
COPY --from=environment /opt/m2ib /opt/m2ib
ENV PATH=/opt/m2ib/bin:$PATH PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 M2IB_MODELS=/models \
    M2IB_LISTEN=0.0.0.0:50051 M2IB_HEALTH_LISTEN=127.0.0.1:50052
USER 10001
EXPOSE 50051
VOLUME /models
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["m2ib-server", "health"]
ENTRYPOINT ["m2ib-server"]
CMD ["serve"]
