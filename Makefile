# Every target takes the deployment to act on: make smoke INVENTORY=inventory/example
INVENTORY ?= inventory/local
BIN       := .venv/bin
PLAYBOOK   = $(BIN)/ansible-playbook --inventory $(INVENTORY)
# What make runs must find the commands of .venv, as a shell with the venv active does.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# What Python has compiled is kept, also where a container says otherwise: each start of Ansible is quicker then.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help deploy test check smoke destroy lab unlab molecule bench lint unit docs lock

help:     ## List the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

deploy: .venv/installed  ## Make the deployment what the inventory says; safe to run again
	$(PLAYBOOK) playbooks/site.yml

test: check deploy  ## Everything that proves the project: lint, unit tests, deploy, smoke suite, the lab
	$(BIN)/pytest smoke --inventory $(INVENTORY)
	$(BIN)/molecule test

check: lint unit  ## The fast loop: lint and unit tests

smoke: .venv/installed  ## Break a deployment on purpose and count what its clients felt
	$(BIN)/pytest smoke --inventory $(INVENTORY)

destroy: .venv/installed  ## Remove the deployment: nodes, data and processes; the packages stay
	$(PLAYBOOK) playbooks/destroy.yml

lab: .venv/installed  ## Deploy on five hosts, systemd containers of this machine, and leave them running
	$(BIN)/ansible-playbook --inventory inventory/lab molecule/shared/create.yml
	$(BIN)/ansible-playbook --inventory inventory/lab playbooks/site.yml

unlab: .venv/installed  ## Remove the lab: hosts, network, secrets
	$(BIN)/ansible-playbook --inventory inventory/lab molecule/shared/destroy.yml

molecule: .venv/installed  ## Every scenario of the lab, one after the other, with everything that the smoke suite has
	SMOKE_PROFILE=full $(BIN)/molecule test --all

bench: .venv/installed  ## Measure provisioning, failures and throughput on hosts of its own (hours), and write docs/benchmarks.md
	@command -v amqp-publish > /dev/null || $(BIN)/ansible localhost --become -m ansible.builtin.apt -a name=amqp-tools
	$(BIN)/python -m bench

lint: .venv/installed  ## Style and types
	$(BIN)/yamllint --strict .
	$(BIN)/ansible-lint --offline
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/shellcheck scripts/*.sh .ci/run
	$(BIN)/python scripts/reference.py --check

# The templates are checked by the real haproxy; the package starts nothing.
unit: .venv/installed  ## Tests that need no deployment
	@test -x /usr/sbin/haproxy || $(PLAYBOOK) playbooks/install.yml
	$(BIN)/pytest tests --numprocesses 2

docs: .venv/installed  ## Write docs/variables.md from the argument specs
	$(BIN)/python scripts/reference.py

lock: .venv/installed  ## Pin requirements.in anew into requirements.txt
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-find-links --output-file requirements.txt requirements.in

.venv/installed: requirements.txt pyproject.toml scripts/bootstrap.sh
	scripts/bootstrap.sh
