# The root filesystem of the managed plugin: `make plugin`. Docker reads neither ENTRYPOINT nor ENV of it, but plugin.json.
# For the classic builder as for BuildKit; any Debian from 12 on is a base: --build-arg BASE_IMAGE=debian:trixie-slim
ARG BASE_IMAGE=debian:bookworm-slim

# iptables in both its variants, for Docker's chains lie in one of them; libnftables for ours
FROM ${BASE_IMAGE} AS system
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables libnftables1 python3 \
 && rm -rf /var/lib/apt/lists/*

FROM system AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv
WORKDIR /src
# what weft needs comes first, so that a change of weft itself does not fetch it again
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv /opt/pip \
 && python3 -m venv --without-pip /opt/weft \
 && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' >needs.txt \
 && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' >builds.txt \
 && /opt/pip/bin/pip install --no-cache-dir -r builds.txt \
 && /opt/pip/bin/pip --python /opt/weft/bin/python install --no-cache-dir -c constraints.txt -r needs.txt
COPY README.md LICENSE ./
COPY drivers drivers
COPY plugin plugin
RUN /opt/pip/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheel . \
 && /opt/pip/bin/pip --python /opt/weft/bin/python install --no-deps --no-index wheel/*.whl

FROM system
COPY --from=build /opt/weft /opt/weft
