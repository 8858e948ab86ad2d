# One member: docker build -t kvstore . && docker run -p 2379:2379 -v data:/data kvstore
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY kvstore kvstore
COPY raft raft
RUN pip install --no-cache-dir --prefix=/opt/kvstore .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/kvstore /usr/local
RUN useradd --system --uid 2379 --home-dir /data --create-home kvstore
USER kvstore
VOLUME /data
EXPOSE 2379 2380
ENV KVSTORE_DATA_DIR=/data/member.etcd \
    KVSTORE_LISTEN_CLIENT_URLS=http://0.0.0.0:2379 \
    KVSTORE_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379
ENTRYPOINT ["kvstore"]
