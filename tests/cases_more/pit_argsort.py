# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_argsort', verdict='WARN', culprit_op='argsort',
 source_url='https://github.com/roboflow/rf-detr/pull/1495',
 expect='')
class M(nn.Module):
    def forward(self, x): return x.argsort(-1)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8),)
