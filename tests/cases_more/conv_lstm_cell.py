# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_lstm_cell', verdict='ROUTE', culprit_op='lstm_cell',
 source_url='https://github.com/apple/coremltools/issues/2175',
 expect='')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.c = nn.LSTMCell(4, 6)
    def forward(self, x): return self.c(x)[0]
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4),)
