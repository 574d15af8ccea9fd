"""What `kubectl get` shows: the columns of each kind, and Table objects made of them. Pure; time is an argument.

Only `controlplane.apiserver` imports this.
"""
