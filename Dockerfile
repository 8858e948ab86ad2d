# kvstore and kvctl in one image, for an ordinary user.
#
#   docker build -t kvstore .
#   docker run -p 127.0.0.1:2379:2379 -v data:/data kvstore              one member; flags may follow
#   docker run --network host kvstore kvctl get greeting                 any other command
#
# Without a network: python -m pip download -d wheels '.[dns,docker,template]' setuptools wheel, and then
#   docker build -t kvstore --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/src/wheels .
FROM python:3.11-slim-bookworm AS build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /src
COPY . .
RUN python -m venv --without-pip /opt/kvstore \
    && python -m pip --python /opt/kvstore/bin/python install --no-cache-dir '.[dns,docker,template]' \
    && install -m 755 deploy/image/entrypoint deploy/image/healthcheck /opt/kvstore/bin/

FROM python:3.11-slim-bookworm
COPY --from=build /opt/kvstore /opt/kvstore
RUN groupadd --system --gid 2379 kvstore \
    && useradd --system --uid 2379 --gid kvstore --home-dir /data --create-home kvstore
USER kvstore
WORKDIR /data
VOLUME /data
EXPOSE 2379 2380
ENV PATH=/opt/kvstore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KVSTORE_DATA_DIR=/data/member.etcd \
    KVSTORE_LISTEN_CLIENT_URLS=http://0.0.0.0:2379 \
    KVSTORE_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["healthcheck"]
ENTRYPOINT ["entrypoint"]
